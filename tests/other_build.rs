//! Another build of the program, which its tests upgrade a gateway to and from: with the allocator of the system.

use std::process::ExitCode;

fn main() -> ExitCode {
    authgate::cli::run()
}
