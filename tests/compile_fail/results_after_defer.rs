//! Results that are filled in although the duty to answer has been taken out of the method.
#[path = "../../examples/generated/mod.rs"]
mod generated;

use capnp_threads::Result;
use generated::hello_capnp::hello;

struct Greeter;

impl hello::Server for Greeter {
    fn say_hello(&self, _: hello::SayHelloParams, mut results: hello::SayHelloResults) -> Result<()> {
        let deferred = results.defer()?;
        results.get().set_greeting("too late");
        drop(deferred);
        Ok(())
    }
}

fn main() {}
