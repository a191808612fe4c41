//! Results that are filled in by another thread, without taking the duty to answer out of the method.
#[path = "../../examples/generated/mod.rs"]
mod generated;

use capnp_threads::Result;
use generated::hello_capnp::hello;

struct Greeter;

impl hello::Server for Greeter {
    fn say_hello(&self, _: hello::SayHelloParams, mut results: hello::SayHelloResults) -> Result<()> {
        std::thread::spawn(move || results.get().set_greeting("later"));
        Ok(())
    }
}

fn main() {}
