//! What a generated message tells this library about its flat block.

use crate::Status;

/// A protobuf message with a flat block. Implemented by generated code for every message that a method takes or returns.
///
/// A flat field lives in the flat block only: [`take_flat`](Message::take_flat) moves it out of the message before the
/// rest is encoded, [`put_flat`](Message::put_flat) sets it after decoding, over anything the body may have claimed.
pub trait Message: prost::Message + Default + Send + 'static {
    /// Fingerprint of the flat layout, as in the manifest; 0 for a message without flat fields.
    const LAYOUT: u32;
    /// Bytes of the flat block, at most 192; 0 for a message without flat fields.
    const FLAT_LEN: usize;

    /// Moves the flat fields into `block` (`FLAT_LEN` bytes, zeroed), leaving defaults.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, naming field and limit, where a value is longer than its `max_len`.
    fn take_flat(&mut self, block: &mut [u8]) -> Result<(), Status>;

    /// Sets every flat field from `block`, which may be shorter or longer than `FLAT_LEN`: what it does not have
    /// becomes the default.
    fn put_flat(&mut self, block: &[u8]);
}

/// `google.protobuf.Empty`, which prost maps to this: no flat fields and no body.
impl Message for () {
    const LAYOUT: u32 = 0;
    const FLAT_LEN: usize = 0;

    fn take_flat(&mut self, _block: &mut [u8]) -> Result<(), Status> {
        Ok(())
    }

    fn put_flat(&mut self, _block: &[u8]) {}
}
