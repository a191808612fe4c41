//! A call whose promise is dropped at once, which cancels it.
#[path = "../../examples/generated/mod.rs"]
mod generated;

use generated::hello_capnp::hello;

#[deny(unused_must_use)]
fn greet(greeter: &hello::Client) {
    greeter.say_hello(|mut params| params.set_name("Ada"));
}

fn main() {}
