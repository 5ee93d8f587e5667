//! The table of saved return addresses is the barriers'.
fn main() {
    stackmark::stack::asm::barrier::saved(1).store(1, std::sync::atomic::Ordering::Relaxed);
}
