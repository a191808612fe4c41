//! The smallest example: one object with one method.
//!
//! ```text
//! hello                          server and client in this process, over TCP
//! hello server ADDRESS           serves; prints `listening PORT`; port 0 lets the system choose
//! hello client ADDRESS NAME      prints the server's greeting for NAME
//! ```
//!
//! The interface is `schema/hello.capnp`. The structs that travel, the params and the results of its method,
//! have readers and builders that `capnpc` generated. What serves is any value that implements [`Server`], and
//! what calls is a [`Client`]: neither knows where the other is.

#[path = "../generated/mod.rs"]
mod generated;

use std::process::ExitCode;

use capnp::traits::HasTypeId;
use capnp_threads::{Call, Client, Error, Listener, Result, Server, Vat};
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

/// Connects, makes one call, and waits for its answer.
fn greet(address: &str, name: &str) -> Result<String> {
    let connection = Vat::new().connect(address)?;
    let greeter = connection.bootstrap();

    let (interface, method) = SAY_HELLO;
    let mut request = greeter.request(interface, method);
    request.init::<say_hello_params::Builder>().set_name(name);
    let response = request.send().wait()?;
    let greeting = response.get_as::<say_hello_results::Reader>()?.get_greeting()?;
    Ok(greeting.to_string()?)
}

/// The address that a listener was given.
fn address_of(listener: &Listener) -> Result<std::net::SocketAddr> {
    listener.local_addr().ok_or_else(|| Error::failed("not a TCP listener"))
}

fn run(args: &[&str]) -> Result<ExitCode> {
    match args {
        [] => {
            let listener = serve("127.0.0.1:0")?;
            println!("{}", greet(&address_of(&listener)?.to_string(), "world")?);
        }
        ["server", address] => {
            let listener = serve(address)?;
            println!("listening {}", address_of(&listener)?.port());
            listener.wait()?;
        }
        ["client", address, name] => println!("{}", greet(address, name)?),
        _ => {
            eprintln!("usage: hello [server ADDRESS | client ADDRESS NAME]");
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
