pub const DESCRIPTOR_SET: &[u8] = b"";
