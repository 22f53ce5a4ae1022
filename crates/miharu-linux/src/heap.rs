//! The memory of this process.

/// What is as large as this, in bytes, is mapped by itself, and given back to the kernel when it is dropped: texts of answers, and
/// figures of all instances of a host that has some dozens.
const LARGE: i32 = 64 << 10;

/// So many free bytes stay at the end of the heap for the next collection.
const SPARE: i32 = 1 << 20;

/// Makes the heap of this process fit for one that makes and drops much at a time; to be called before there are other threads.
///
/// They all share one heap. glibc gives a thread a heap of its own when it finds the common one in use, and each of these keeps the
/// most that it ever held: with figures made on one thread and dropped on another that is a third of the whole. The few threads that
/// read and render wait for the kernel rather than for each other.
///
/// And what is large never comes from that heap. By itself glibc takes it from there once a thing as large has been dropped; a text of
/// some megabytes then lies between small things that outlive it, and leaves a hole that hardly anything fits into: a
/// third of the heap with 500 containers. The lists that a collection of 200 makes take 100 to 250 kB each. As long as they came from the
/// heap, whatever small was made beside them and stayed took a hole from them now and then, for which the heap grew by as much, up to half a
/// megabyte at once and for hours.
pub fn share() {
    crate::sys::set_heap(LARGE, SPARE);
}
