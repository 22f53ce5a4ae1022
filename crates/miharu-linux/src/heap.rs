//! The memory of this process.

/// Makes all threads of this process share one heap; to be called before there are any. glibc gives a thread a heap of its
/// own when it finds the common one in use, and each of these keeps the most that it ever held: with figures made on one thread
/// and dropped on another that is a third of the whole. The few threads that read and render wait for the kernel rather than for each other.
pub fn share() {
    crate::sys::share_heap();
}
