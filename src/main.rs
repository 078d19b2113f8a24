//! The program: see [`authgate::cli`].

use std::process::ExitCode;

/// Requests allocate little, but from many threads and for short times.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    authgate::cli::run()
}
