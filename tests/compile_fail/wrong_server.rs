//! A value that implements another interface, or none.
#[path = "../../examples/generated/mod.rs"]
mod generated;

use capnp_threads::Capability;
use generated::hello_capnp::hello;

struct Mute;

fn main() {
    let _ = hello::Client::new(Mute);
}
