//! A server whose state is not safe to share between threads.
#[path = "../../examples/generated/mod.rs"]
mod generated;

use std::cell::Cell;

use capnp_threads::Result;
use generated::hello_capnp::hello;

struct Counting(Cell<u32>);

impl hello::Server for Counting {
    fn say_hello(&self, _: hello::SayHelloParams, _: hello::SayHelloResults) -> Result<()> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

fn main() {}
