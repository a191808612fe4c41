//! A chat room: objects passed both ways, and calls in both directions at any time.
//!
//! ```text
//! chat                           a room, and participants on threads of their own, in this process, over TCP
//! chat server ADDRESS            serves a room; prints `listening PORT`; port 0 lets the system choose
//! chat client ADDRESS NAME       enters the room; says the lines of stdin, prints what is said
//! ```
//!
//! Who enters a room gives it an object, a *participant*, and is given one, a *session*. From then on either
//! side calls the other's object whenever it has something to say, and drops it when it is done: there is no
//! client and no server any more. The interface is `schema/chat.capnp`. In the order to read:
//!
//! 1. `room.rs`: the room; `serving.rs`: the objects that let others in.
//! 2. `outbox.rs`: how the room speaks to a participant that may be slow, or gone, without waiting for it.
//! 3. `visitor.rs`: the other side: an ear in the room, a person at a keyboard; `play.rs`: a scripted evening.

#[path = "../generated/mod.rs"]
mod generated;

mod outbox;
mod play;
mod room;
mod serving;
mod visitor;

use std::process::ExitCode;
use std::sync::Arc;

use capnp_threads::{Capability, Listener, Result, Vat};
use generated::chat_capnp::chat_room;

/// Serves a room on `address`, until the listener is dropped. Other rooms can be served on other addresses.
fn open(room: &Arc<room::Room>, address: &str) -> Result<Listener> {
    let door = chat_room::Client::new(serving::Door(room.clone()));
    Vat::new().bootstrap(door).listen(address)
}

fn run(args: &[&str]) -> Result<ExitCode> {
    let room = Arc::default();
    match args {
        [] => {
            let listener = open(&room, "127.0.0.1:0")?;
            play::perform(listener.local_addr())?;
            println!("Left in the room: {}.", room.names().len());
        }
        ["server", address] => {
            let listener = open(&room, address)?;
            println!("listening {}", listener.local_addr().port());
            listener.wait()?;
        }
        ["client", address, name] => visitor::visit(address, name)?,
        _ => {
            eprintln!("usage: chat [server ADDRESS | client ADDRESS NAME]");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(&args).unwrap_or_else(|e| {
        eprintln!("chat: {e}");
        ExitCode::FAILURE
    })
}
