//! How many password hashes a second bare threads reach: what logins are measured against.
//!
//! As many threads as there are cores hash with the default parameters for five seconds, each on
//! memory of its own, with nothing around it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Block, Params, Version};

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let span = Duration::from_secs(5);
    let count = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let params = Params::new(19 << 10, 2, 1, None).expect("the default parameters are legal");
                let mut blocks = vec![Block::new(); params.block_count()];
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                let mut output = [0; 32];
                while begun.elapsed() < span {
                    argon2
                        .hash_password_into_with_memory(
                            b"the password of bench-user",
                            &[7; 16],
                            &mut output,
                            &mut blocks,
                        )
                        .expect("the parameters are legal");
                    count.fetch_add(1, Relaxed);
                }
            });
        }
    });
    println!("{:.2}", count.load(Relaxed) as f64 / begun.elapsed().as_secs_f64());
}
