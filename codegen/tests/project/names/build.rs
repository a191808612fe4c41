//! Generates the code from a stored request.

fn main() {
    let stored = std::fs::File::open("people.request").expect("the stored request");
    capnpc_threads::CodeGenerationCommand::new().run(stored).expect("generating code");
}
