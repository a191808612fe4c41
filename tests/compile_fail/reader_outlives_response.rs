//! A reader that is kept longer than the response that it reads.
#[path = "../../examples/generated/mod.rs"]
mod generated;

use capnp_threads::Result;
use generated::hello_capnp::hello;

fn greeting(greeter: &hello::Client) -> Result<&str> {
    let response = greeter.say_hello(|mut params| params.set_name("Ada")).wait()?;
    Ok(response.get()?.get_greeting()?.to_str()?)
}

fn main() {}
