//! The program `capnpc-rust-threads`.

use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    match crate::CodeGenerationCommand::new().output_directory(".").run(std::io::stdin()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("capnpc-rust-threads: {error}");
            ExitCode::FAILURE
        }
    }
}
