//! A streaming call that is sent without a stream.
#[path = "../../examples/generated/mod.rs"]
mod generated;

use capnp_threads::Result;
use generated::bench_capnp::bench;

fn push(bench: &bench::Client) -> Result<()> {
    bench.push_request().send()
}

fn main() {}
