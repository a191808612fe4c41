//! The calculator: the sample that most implementations of Cap'n Proto RPC come with.
//!
//! ```text
//! calculator                     server and client in this process, over TCP, with comments
//! calculator server ADDRESS      serves; prints `listening PORT`; port 0 lets the system choose
//! calculator client HOST:PORT    drives any calculator server: this one, or another implementation's
//! ```
//!
//! What there is to see, in the order to read it:
//!
//! 1. `expression.rs`: expressions as a Rust enum, with objects in it; how one is evaluated.
//! 2. `server.rs`: the objects that are served. A method that waits for others lets its object's next call in.
//! 3. `client.rs`: the well-known session, with pipelined calls and with functions that the server calls back.

#[path = "../generated/mod.rs"]
mod generated;

mod client;
mod expression;
mod server;

use std::process::ExitCode;

use capnp_threads::{Capability, Listener, Result, Vat};
use generated::calculator_capnp::calculator;

/// Serves a calculator on `address`, until the listener is dropped.
fn listen(address: &str) -> Result<Listener> {
    Vat::new().bootstrap(calculator::Client::new(server::Calculator)).listen(address)
}

fn run(args: &[&str]) -> Result<ExitCode> {
    match args {
        [] => {
            let listener = listen("127.0.0.1:0")?;
            let address = listener.local_addr();
            println!("A calculator listens on {address}. Its client:\n");
            let connection = Vat::new().connect(address)?;
            client::show(connection.bootstrap())?;
        }
        ["server", address] => {
            let listener = listen(address)?;
            println!("listening {}", listener.local_addr().port());
            listener.wait()?;
        }
        ["client", address] => {
            let connection = Vat::new().connect(*address)?;
            client::drive(connection.bootstrap())?;
        }
        _ => {
            eprintln!("usage: calculator [server ADDRESS | client HOST:PORT]");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(&args).unwrap_or_else(|e| {
        eprintln!("calculator: {e}");
        ExitCode::FAILURE
    })
}
