//! A request that is sent to another thread before it is sent to the object.
#[path = "../../examples/generated/mod.rs"]
mod generated;

use generated::hello_capnp::hello;

fn later(greeter: &hello::Client) {
    let request = greeter.say_hello_request();
    std::thread::spawn(move || request.send().wait());
}

fn main() {}
