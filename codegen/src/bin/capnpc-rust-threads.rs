//! The plugin that `capnp compile -orust-threads` runs, and the tool that stores requests. See `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    capnpc_threads::cli::main()
}
