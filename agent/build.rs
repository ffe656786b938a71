//! Relocations in their packed form (ELF's RELR), which is 330 KB less of `holmd`. It takes glibc 2.36 (Debian 12), or a
//! musl of our own; a linker that does not know it for a target says so and leaves it out.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    // Debug builds are for this machine, whatever its C library is.
    if of("PROFILE") == "release" && of("CARGO_CFG_TARGET_OS") == "linux" {
        // Without a C compiler in between it is the linker that is spoken to.
        let direct = of("RUSTC_LINKER").contains("lld");
        println!(
            "cargo:rustc-link-arg-bins={}",
            if direct { "-zpack-relative-relocs" } else { "-Wl,-z,pack-relative-relocs" }
        );
    }
}
