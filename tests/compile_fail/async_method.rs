//! A method that is async, as in capnp-rpc.
#[path = "../../examples/generated/mod.rs"]
mod generated;

use capnp_threads::Result;
use generated::hello_capnp::hello;

struct Greeter;

impl hello::Server for Greeter {
    async fn say_hello(&self, _: hello::SayHelloParams, _: hello::SayHelloResults<'_>) -> Result<()> {
        Ok(())
    }
}

fn main() {}
