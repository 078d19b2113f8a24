//! The program: see [`authgate::cli`].

use std::process::ExitCode;

/// Requests allocate little, but from many threads and for short times.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // SAFETY: it may be called at any time, by any thread.
    authgate::memory::is_given_back_by(|| unsafe { libmimalloc_sys::mi_collect(false) });
    authgate::cli::run()
}
