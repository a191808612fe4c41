//! Generates the code from the schemas.

fn main() {
    println!("cargo::rerun-if-changed=../../schema");
    capnpc_threads::CompilerCommand::new()
        .src_prefix("../../schema")
        .import_path("../../schema/vendor")
        .no_standard_import()
        .file("../../schema/zoo-keeper.capnp")
        .file("../../schema/sub/animal.capnp")
        .crate_provides("names", [0xd3a1b2c4d5e6f708])
        .default_parent_module(vec!["schemas".into()])
        .run()
        .expect("compiling schemas");
}
