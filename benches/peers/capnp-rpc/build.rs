//! Generates the interface's code. Needs the `capnp` tool.

fn main() {
    let schemas = "../../../schema";
    let generated =
        capnpc::CompilerCommand::new().src_prefix(schemas).file(format!("{schemas}/bench.capnp")).run();
    generated.expect("`capnp` compiles the interface");
}
