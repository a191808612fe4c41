//! The smallest example: one object with one method.
//!
//! ```text
//! hello                          server and client in this process, over TCP
//! hello server ADDRESS           serves; prints `listening PORT`; port 0 lets the system choose
//! hello client ADDRESS NAME      prints the server's greeting for NAME
//! hello child NAME               the same, with a server that is started for it, over its stdin and stdout
//! hello stdio                    that server
//! ```
//!
//! The interface is `schema/hello.capnp`. The module that is generated from it has a `Client`, with the methods
//! of the interface, and a trait `Server`, which any value can implement: neither knows where the other is.

#[path = "../generated/mod.rs"]
mod generated;

use std::io::{stdin, stdout};
use std::process::{Command, ExitCode, Stdio};

use capnp_threads::error::TransportError;
use capnp_threads::transport::Transport;
use capnp_threads::{Capability, Limits, Listener, Result, Vat};
use generated::hello_capnp::hello;

/// What the server offers to whoever connects. It has no state; another object might have fields, behind
/// whatever makes them safe to share, since many clients can hold the same object.
struct Greeter;

impl hello::Server for Greeter {
    fn say_hello(&self, params: hello::SayHelloParams, mut results: hello::SayHelloResults) -> Result<()> {
        let name = params.get()?.get_name()?.to_str()?;
        results.get().set_greeting(format!("Hello, {name}!"));
        Ok(())
    }
}

/// Listens on `address`. As long as the listener is held, it accepts connections, each on threads of its own.
fn serve(address: &str) -> Result<Listener> {
    Vat::new().bootstrap(hello::Client::new(Greeter)).listen(address)
}

/// Connects, and gives what the server offers. The connection stays open as long as that is held.
fn connect(address: &str) -> Result<hello::Client> {
    Ok(Vat::new().connect(address)?.bootstrap())
}

/// Makes one call, and waits for its answer.
fn greet(greeter: &hello::Client, name: &str) -> Result<String> {
    let response = greeter.say_hello(|mut params| params.set_name(name)).wait()?;
    Ok(response.get()?.get_greeting()?.to_string()?)
}

/// Starts this program once more as a server, and is its only client.
fn greet_through_child(name: &str) -> Result<String> {
    let io = |e| TransportError::io("starting a child", e);
    let mut command = Command::new(std::env::current_exe().map_err(io)?);
    command.arg("stdio").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(io)?;
    let transport = Transport::child(&mut child, &Limits::default()).map_err(io)?;
    let connection = Vat::new().over(transport)?;
    let greeting = greet(&connection.bootstrap(), name);
    // The last handle: the connection ends, the child sees that, and ends too.
    drop(connection);
    child.wait().map_err(|e| TransportError::io("waiting for a child", e))?;
    greeting
}

/// Serves whoever has started this program, until they close their end.
fn serve_parent() -> Result<()> {
    let transport = Transport::pair(stdin(), stdout(), &Limits::default());
    let connection = Vat::new().bootstrap(hello::Client::new(Greeter)).over(transport)?;
    connection.wait_closed()?;
    Ok(())
}

fn run(args: &[&str]) -> Result<ExitCode> {
    match args {
        [] => {
            let listener = serve("127.0.0.1:0")?;
            println!("{}", greet(&connect(&listener.local_addr().to_string())?, "world")?);
        }
        ["server", address] => {
            let listener = serve(address)?;
            println!("listening {}", listener.local_addr().port());
            listener.wait()?;
        }
        ["client", address, name] => println!("{}", greet(&connect(address)?, name)?),
        ["child", name] => println!("{}", greet_through_child(name)?),
        ["stdio"] => serve_parent()?,
        _ => {
            eprintln!("usage: hello [server ADDRESS | client ADDRESS NAME | child NAME | stdio]");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(&args).unwrap_or_else(|e| {
        eprintln!("hello: {e}");
        ExitCode::FAILURE
    })
}
