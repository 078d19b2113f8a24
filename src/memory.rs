//! The allocator, and what kernel and allocator are told of the process's memory.

use std::{
    alloc::{GlobalAlloc, Layout},
    mem::size_of,
};

use libmimalloc_sys::{
    mi_collect, mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc,
    mi_zalloc_aligned,
};

/// mimalloc, asked for an alignment only where it is more than a word's, which every block has.
///
/// Blocks of more than a kilobyte, as those of headers, are otherwise made larger to align them, and every block beside them
/// costs more to free.
#[derive(Debug)]
pub struct Mimalloc;

fn has_words(layout: Layout) -> bool {
    layout.align() <= size_of::<usize>()
}

// SAFETY: the functions of mimalloc keep the contract of the trait: blocks of at least the size, aligned as asked, or to a word.
unsafe impl GlobalAlloc for Mimalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = if has_words(layout) {
            // SAFETY: any size may be asked for.
            unsafe { mi_malloc(layout.size()) }
        } else {
            // SAFETY: the alignment of a layout is a power of two.
            unsafe { mi_malloc_aligned(layout.size(), layout.align()) }
        };
        block.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = if has_words(layout) {
            // SAFETY: as in `alloc`.
            unsafe { mi_zalloc(layout.size()) }
        } else {
            // SAFETY: as in `alloc`.
            unsafe { mi_zalloc_aligned(layout.size(), layout.align()) }
        };
        block.cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the block was allocated here.
        unsafe { mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let block = block.cast();
        let block = if has_words(layout) {
            // SAFETY: the block was allocated here.
            unsafe { mi_realloc(block, size) }
        } else {
            // SAFETY: the block was allocated here, with this alignment.
            unsafe { mi_realloc_aligned(block, size, layout.align()) }
        };
        block.cast()
    }
}

/// Gives back what this thread has freed and nobody has used for a moment. The allocator does so by itself when it is asked
/// for more, which a thread at rest never does.
pub fn give_back() {
    // SAFETY: it may be called at any time, by any thread.
    unsafe { mi_collect(false) };
}

/// Takes memory in small pages from now on, but for what asks for large ones. Half of what idle connections seemed to take
/// was the rest of huge pages of which they used a corner, and requests are no faster on those.
pub fn use_small_pages() {
    #[cfg(target_os = "linux")]
    {
        /// Linux 6.18: `PR_THP_DISABLE_EXCEPT_ADVISED`.
        const EXCEPT_ADVISED: libc::c_ulong = 1 << 1;
        // SAFETY: it concerns how the kernel backs this process's memory, and nothing that can be seen in it.
        let disable = |flags: libc::c_ulong| unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, flags, 0, 0) };
        // An older kernel disables huge pages for all memory or for none. It has to only where the policy is `always`.
        if disable(EXCEPT_ADVISED) != 0 && huge_pages_are_the_default() {
            disable(0);
        }
    }
}

#[cfg(target_os = "linux")]
fn huge_pages_are_the_default() -> bool {
    std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .map_or(true, |policy| policy.contains("[always]"))
}

/// Asks the kernel to back a vector's memory with huge pages. It should be megabytes, all in use. Pages that were written to
/// before stay small.
pub fn use_huge_pages<T>(vector: &Vec<T>) {
    #[cfg(target_os = "linux")]
    advise(vector, libc::MADV_HUGEPAGE);
}

/// Frees a vector that was given huge pages. The allocator may use its memory for something small.
pub fn free_huge_pages<T>(vector: Vec<T>) {
    #[cfg(target_os = "linux")]
    advise(&vector, libc::MADV_NOHUGEPAGE);
    drop(vector);
}

#[cfg(target_os = "linux")]
fn advise<T>(vector: &Vec<T>, advice: libc::c_int) {
    /// What the kernel takes ranges in.
    const PAGE: usize = 4 << 10;
    let begin = (vector.as_ptr() as usize).next_multiple_of(PAGE);
    let end = (vector.as_ptr() as usize + vector.capacity() * size_of::<T>()) / PAGE * PAGE;
    if begin < end {
        // SAFETY: the range lies in the vector's memory, and the advice changes nothing that can be seen in it.
        unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, advice) };
    }
}
