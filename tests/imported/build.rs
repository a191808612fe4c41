//! Generates the code of `schema/postal.capnp` from `schema/stored.request`, which `schema/generate.sh` of the
//! repository stores. The `capnp` tool is not needed.

use std::fs::File;

const STORED: &str = "schema/stored.request";

fn main() {
    println!("cargo::rerun-if-changed={STORED}");
    let stored = File::open(STORED).expect("the stored request");
    capnpc_threads::CodeGenerationCommand::new().run(stored).expect("generating code");
}
