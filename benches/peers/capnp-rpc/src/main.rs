//! Serves and drives `schema/bench.capnp` with the `capnp-rpc` crate, on tokio's runtime of one thread.
//!
//! ```text
//! peer server ADDRESS                                 prints `listening PORT`, and serves until it is killed
//! peer client ADDRESS check                           prints one line of JSON, as do the others
//! peer client ADDRESS MODE COUNT INFLIGHT BYTES       makes COUNT calls, with up to INFLIGHT under way
//! ```
//!
//! The modes are those of `examples/peer`, which says what they are, but for those that are about its threads and
//! its tables.

use std::error::Error;
use std::process::ExitCode;

use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{twoparty, RpcSystem};
use futures::io::{BufReader, BufWriter};
use futures::{AsyncReadExt, FutureExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt;

mod check;
mod object;
mod work;

capnp::generated_code!(mod bench_capnp);

use bench_capnp::bench;

const USAGE: &str = "usage: peer server ADDRESS | peer client ADDRESS MODE [COUNT INFLIGHT BYTES]";

/// What the parts of this program return.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.expect("the system has what a runtime needs");
    match tokio::task::LocalSet::new().block_on(&runtime, run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["server", address] => serve(address).await,
        ["client", address, "check", ..] => check::run(&connect(address).await?).await,
        ["client", address, mode, count, inflight, bytes] => {
            work::Work::parse(mode, count, inflight, bytes)?.run(address).await
        }
        _ => Err(USAGE.into()),
    }
}

async fn serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("listening {}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = over(stream, Side::Server, Some(object::new()))?;
        tokio::task::spawn_local(connection.map(drop));
    }
}

/// A connection of its own, and the server's object.
async fn connect(address: &str) -> Result<bench::Client> {
    let mut connection = over(TcpStream::connect(address).await?, Side::Client, None)?;
    let bench = connection.bootstrap(Side::Server);
    tokio::task::spawn_local(connection.map(drop));
    Ok(bench)
}

fn over(stream: TcpStream, side: Side, bootstrap: Option<bench::Client>) -> Result<RpcSystem<Side>> {
    stream.set_nodelay(true)?;
    let (input, output) = stream.compat().split();
    let (input, output) = (BufReader::new(input), BufWriter::new(output));
    let network = twoparty::VatNetwork::new(input, output, side, Default::default());
    Ok(RpcSystem::new(Box::new(network), bootstrap.map(|object| object.client)))
}
