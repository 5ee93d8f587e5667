//! How the shared library is linked: its name, that it exports the functions of the header and
//! nothing of the crates below, and that it stays loaded. Threads, handlers of signals and a key
//! for ends of threads have addresses in it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libstackmark.so.0");
    println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
