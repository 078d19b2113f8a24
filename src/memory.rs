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

/// Takes memory in small pages from now on. Half of what idle connections seemed to take was the rest of huge pages of which
/// they used a corner, and requests are no faster on those.
pub fn use_small_pages() {
    #[cfg(target_os = "linux")]
    // SAFETY: it concerns how the kernel backs this process's memory, and nothing that can be seen in it.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}
