//! The program: see [`authgate::cli`].

use std::process::ExitCode;

use authgate::memory::Mimalloc;

/// Requests allocate little, but from many threads and for short times.
#[global_allocator]
static ALLOCATOR: Mimalloc = Mimalloc;

fn main() -> ExitCode {
    authgate::cli::run()
}
