//! The entry point: `cli` parses the arguments and returns the exit code.

use std::process::ExitCode;

#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    jit::cli::main()
}
