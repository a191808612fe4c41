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
//! The interface is `schema/hello.capnp`. The structs that travel, the params and the results of its method,
//! have readers and builders that `capnpc` generated. What serves is any value that implements [`Server`], and
//! what calls is a [`Client`]: neither knows where the other is.

#[path = "../generated/mod.rs"]
mod generated;

use std::io::{stdin, stdout};
use std::process::{Command, ExitCode, Stdio};

use capnp::traits::HasTypeId;
use capnp_threads::error::TransportError;
use capnp_threads::transport::Transport;
use capnp_threads::{Call, Client, Error, Limits, Listener, Result, Server, Vat};
use generated::hello_capnp::hello::{self, say_hello_params, say_hello_results};

/// The method `sayHello`, as it is named on the wire: the ID of its interface, and its ordinal there.
const SAY_HELLO: (u64, u16) = (hello::Client::TYPE_ID, 0);

/// What the server offers to whoever connects. It has no state; another object might have fields, behind
/// whatever makes them safe to share, since many clients can hold the same object.
struct Greeter;

impl Server for Greeter {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        match (call.interface_id(), call.method_id()) {
            SAY_HELLO => {
                let name = call.params_as::<say_hello_params::Reader>()?.get_name()?.to_string()?;
                let mut results: say_hello_results::Builder = call.init_results();
                results.set_greeting(format!("Hello, {name}!"));
                Ok(())
            }
            _ => call.unimplemented(),
        }
    }
}

/// Listens on `address`. As long as the listener is held, it accepts connections, each on threads of its own.
fn serve(address: &str) -> Result<Listener> {
    Vat::new().bootstrap(Client::new(Greeter)).listen(address)
}

/// Connects, and gives what the server offers. The connection stays open as long as that is held.
fn connect(address: &str) -> Result<Client> {
    let connection = Vat::new().connect(address)?;
    Ok(connection.bootstrap::<Client>())
}

/// Makes one call, and waits for its answer.
fn greet(greeter: &Client, name: &str) -> Result<String> {
    let (interface, method) = SAY_HELLO;
    let mut request = greeter.request(interface, method);
    request.init::<say_hello_params::Builder>().set_name(name);
    let response = request.send().wait()?;
    let greeting = response.get_as::<say_hello_results::Reader>()?.get_greeting()?;
    Ok(greeting.to_string()?)
}

/// Starts this program once more as a server, and is its only client.
fn greet_through_child(name: &str) -> Result<String> {
    let io = |e| TransportError::io("starting a child", e);
    let mut command = Command::new(std::env::current_exe().map_err(io)?);
    command.arg("stdio").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(io)?;
    let transport = Transport::child(&mut child, &Limits::default()).map_err(io)?;
    let connection = Vat::new().over(transport)?;
    let greeting = greet(&connection.bootstrap::<Client>(), name);
    // The last handle: the connection ends, the child sees that, and ends too.
    drop(connection);
    child.wait().map_err(|e| TransportError::io("waiting for a child", e))?;
    greeting
}

/// Serves whoever has started this program, until they close their end.
fn serve_parent() -> Result<()> {
    let transport = Transport::pair(stdin(), stdout(), &Limits::default());
    let connection = Vat::new().bootstrap(Client::new(Greeter)).over(transport)?;
    connection.wait_closed()?;
    Ok(())
}

/// The address that a listener was given.
fn address_of(listener: &Listener) -> Result<std::net::SocketAddr> {
    listener.local_addr().ok_or_else(|| Error::failed("not a TCP listener"))
}

fn run(args: &[&str]) -> Result<ExitCode> {
    match args {
        [] => {
            let listener = serve("127.0.0.1:0")?;
            println!("{}", greet(&connect(&address_of(&listener)?.to_string())?, "world")?);
        }
        ["server", address] => {
            let listener = serve(address)?;
            println!("listening {}", address_of(&listener)?.port());
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
