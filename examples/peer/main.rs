//! A peer for interoperability and speed: serves and drives `schema/bench.capnp`.
//!
//! ```text
//! peer server ADDRESS                              prints `listening PORT`, and serves until it is killed
//! peer client ADDRESS MODE COUNT INFLIGHT BYTES    prints one line of JSON
//! ```
//!
//! `MODE` is one of `check`, `latency`, `throughput`, `pipeline`, `callback`, `churn`, `stream` and `conns`.
//! `check` needs none of the numbers. `conns` opens `INFLIGHT` connections, each with a thread that has one
//! echo in flight at a time, `COUNT` calls in all.

use std::error::Error;
use std::process::ExitCode;

use capnp_threads::{Capability, Pool, Vat};

mod check;
mod client;
#[path = "../generated/mod.rs"]
mod generated;
mod server;

use generated::bench_capnp::bench;

const USAGE: &str = "usage: peer server ADDRESS | peer client ADDRESS MODE [COUNT INFLIGHT BYTES]";

/// What the parts of this program return.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        ["server", address] => serve(address),
        ["client", address, "check", ..] => check::run(address),
        ["client", address, mode, count, inflight, bytes] => {
            client::Work::parse(mode, count, inflight, bytes).and_then(|work| work.run(address))
        }
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Serves each connection with an object of its own, so that connections do not wait for each other.
fn serve(address: &str) -> Result<()> {
    let vat = Vat::new()
        .bootstrap_with(|_| Ok(bench::Client::with_pool(server::Bench::default(), Pool::in_place())));
    let listener = vat.listen(address)?;
    let address = listener.local_addr().ok_or("a TCP listener has an address")?;
    println!("listening {}", address.port());
    Ok(listener.wait()?)
}
