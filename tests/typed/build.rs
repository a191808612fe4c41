//! Generates the code of the tests' schemas from `schema/stored.request`: what the `capnp` tool made of
//! `schema/*.capnp`, stored by `schema/generate.sh` of the repository. The tool itself is not needed.

use std::fs::File;

use capnpc_threads::CodeGenerationCommand;

const STORED: &str = "schema/stored.request";
/// The ID of `postal.capnp`, whose code is in the crate `imported`.
const POSTAL: u64 = 0xac88_7edc_76b0_4406;
/// The ID of the schema of schemas, whose code is in the crate `capnp`.
const SCHEMA: u64 = 0xa93f_c509_624c_72d9;

fn main() {
    println!("cargo::rerun-if-changed={STORED}");
    let stored = File::open(STORED).expect("the stored request");
    CodeGenerationCommand::new()
        .default_parent_module(vec!["generated".into()])
        .crate_provides("imported", [POSTAL])
        .crate_provides("capnp", [SCHEMA])
        .run(stored)
        .expect("generating code");
}
