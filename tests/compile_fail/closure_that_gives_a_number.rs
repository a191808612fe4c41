//! A closure that should fill in params, and returns something instead.

#[path = "../../examples/generated/mod.rs"]
mod generated;

use generated::hello_capnp::hello;

fn greet(greeter: &hello::Client) {
    greeter.say_hello(|_| "Ada").on_ready(drop);
}

fn main() {}
