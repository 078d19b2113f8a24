//! How threads stand to each other while there are more of them than processors: whoever serves the requests of those who
//! have signed in comes first.

use std::time::Duration;

/// How far threads give way to the workers: what is added to the process's niceness, from 0 to 19 (setpriority(2)).
pub type Niceness = libc::c_int;

/// Threads that hash passwords. Low enough that whoever has signed in hardly waits for those who sign in, high enough
/// that logins go on at a quarter of their calm rate while workers keep every processor busy.
pub const HASHING: Niceness = 3;

/// Threads that run the calls below `auth.path`. They need little time, and a client who makes more of them than can be
/// answered takes none of a worker's.
pub const CALLS: Niceness = 10;

/// How long a worker runs before another thread that waits may have its turn. The kernel lets a thread with short slices
/// begin the sooner after it was woken (EEVDF, Linux 6.12 and later); for how long it may run in all does not change.
const WORKER_SLICE: Duration = Duration::from_micros(200);

/// Makes the calling thread give way to those of the process that do not. Only the privileged may take it back, and a thread
/// begins with what the one has that made it. On systems where a niceness is a whole process's, nothing happens.
pub fn add_niceness(niceness: Niceness) {
    #[cfg(target_os = "linux")]
    // SAFETY: plain system calls about this process's first thread and the calling one (0 is itself).
    unsafe {
        let own = libc::getpriority(libc::PRIO_PROCESS, libc::getpid() as libc::id_t);
        libc::setpriority(libc::PRIO_PROCESS, 0, own + niceness);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}

/// Lets the calling thread begin soon whenever it is woken. Kernels that do not know how take no notice.
#[cfg(target_os = "linux")]
pub fn use_short_slices() {
    // SAFETY: plain system calls about the calling thread; `attributes` is valid for both, and `size` says
    // how long it is.
    unsafe {
        let mut attributes: libc::sched_attr = std::mem::zeroed();
        let size = size_of::<libc::sched_attr>() as libc::c_uint;
        let known = libc::syscall(libc::SYS_sched_getattr, 0, &mut attributes, size, 0) == 0;
        // Under another policy the operator has chosen the slices.
        if !known || attributes.sched_policy != libc::SCHED_OTHER as u32 {
            return;
        }
        attributes.size = size;
        attributes.sched_runtime = WORKER_SLICE.as_nanos() as u64;
        libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0);
    }
}

/// Other systems have no such setting.
#[cfg(not(target_os = "linux"))]
pub fn use_short_slices() {}
