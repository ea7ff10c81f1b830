//! Random bytes from the operating system: topic ids and member ids.
//!
//! Owns the one place that asks for them. Not for tests that must repeat: nothing here can be seeded.

/// 16 random bytes.
pub(crate) fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            // Every Linux that can run the rest has the call; there is nothing sensible to go on with.
            Err(error) => panic!("getrandom failed: {error}"),
        }
    }
    bytes
}
