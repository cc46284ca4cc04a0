//! How a call ended, where not well.

use crate::metadata::MetadataMap;
pub use tollfree_ring::VerdictAt;
use tollfree_wire::Code;

/// A code, a sentence for people, and where it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    code: Code,
    message: String,
    verdict_at: VerdictAt,
    /// Boxed, and none without entries: a `Result` of every call carries it.
    metadata: Option<Box<MetadataMap>>,
}

static NO_METADATA: MetadataMap = MetadataMap::new();

macro_rules! constructors {
    ($($name:ident $code:ident;)*) => {$(
        #[doc = concat!("A status with [`Code::", stringify!($code), "`].")]
        pub fn $name(message: impl Into<String>) -> Status { Status::new(Code::$code, message) }
    )*};
}

impl Status {
    /// A status with this code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into(), verdict_at: VerdictAt::None, metadata: None }
    }

    /// A status that says more in its metadata.
    pub fn with_metadata(code: Code, message: impl Into<String>, metadata: MetadataMap) -> Status {
        let mut status = Status::new(code, message);
        status.metadata = (!metadata.is_empty()).then(|| Box::new(metadata));
        status
    }

    constructors! {
        cancelled Cancelled;
        unknown Unknown;
        invalid_argument InvalidArgument;
        deadline_exceeded DeadlineExceeded;
        not_found NotFound;
        already_exists AlreadyExists;
        permission_denied PermissionDenied;
        resource_exhausted ResourceExhausted;
        failed_precondition FailedPrecondition;
        aborted Aborted;
        out_of_range OutOfRange;
        unimplemented Unimplemented;
        internal Internal;
        unavailable Unavailable;
        data_loss DataLoss;
        unauthenticated Unauthenticated;
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What happened, for people; empty where the verdict came without words, as from a network card.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where it was decided.
    pub fn verdict_at(&self) -> VerdictAt {
        self.verdict_at
    }

    /// What the status says beside its message.
    pub fn metadata(&self) -> &MetadataMap {
        self.metadata.as_deref().unwrap_or(&NO_METADATA)
    }

    /// The same, to change.
    pub fn metadata_mut(&mut self) -> &mut MetadataMap {
        self.metadata.get_or_insert_default()
    }

    pub(crate) fn decided_at(mut self, verdict_at: VerdictAt) -> Status {
        self.verdict_at = verdict_at;
        self
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        match self.verdict_at {
            VerdictAt::None => Ok(()),
            VerdictAt::Driver => f.write_str(" (decided in the driver)"),
            VerdictAt::Engine => f.write_str(" (decided in the engine)"),
            VerdictAt::Application => f.write_str(" (from the service)"),
            VerdictAt::Transport => f.write_str(" (from the transport)"),
        }
    }
}

impl std::error::Error for Status {}
