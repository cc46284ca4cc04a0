//! Stubs from the schema. The first line is all that a service's build script needs; the rest is for the example and
//! for the tests, which also call as clients of another release do.

use std::path::Path;
use tollfree_schema::build::{Builder, compile};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    compile("../../schemas/hash.proto")?;

    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    for release in ["newer", "older", "wrong"] {
        let schema = format!("tests/schemas/{release}/hash.proto");
        Builder::new().out_dir(Path::new(&out).join(release)).compile(&[schema])?;
    }
    for schema in ["kv", "feed", "shop"] {
        let file = format!("../../schemas/{schema}.proto");
        Builder::new().out_dir(Path::new(&out).join(schema)).compile(&[file])?;
    }
    #[cfg(feature = "tonic")]
    tonic_stubs(&Path::new(&out).join("tonic"))?;
    Ok(())
}

/// The stubs of `demo.Feed` that tonic's generator makes.
#[cfg(feature = "tonic")]
fn tonic_stubs(out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(out)?;
    let files = protox::compile(["feed.proto"], ["../../schemas"])?;
    tonic_prost_build::configure().out_dir(out).compile_fds(files)?;
    Ok(())
}
