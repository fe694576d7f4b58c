//! Large objects in parts, side by side.

use std::time::Duration;

use object_store::{MultipartUpload, ObjectStore, PutMultipartOptions, path::Path};
use tokio::{task::JoinSet, time::timeout};

/// The size of a part, and of the largest object that is sent whole, in bytes; S3 wants at least
/// 5 MiB.
pub(crate) const PART_BYTES: usize = 8 << 20;
/// How many parts are on their way at a time.
pub(crate) const PARTS_SIDE_BY_SIDE: usize = 4;
/// The most parts that S3 takes.
const PARTS_MAX: usize = 10_000;
/// How long the server may take to forget the parts of an upload that failed.
const ABORT_TIME_MAX: Duration = Duration::from_secs(5);

/// Stores `bytes` in parts; if that fails, asks the server to forget them.
pub(crate) async fn upload(store: &dyn ObjectStore, key: &Path, bytes: &[u8]) -> object_store::Result<()> {
    let mut upload = store.put_multipart_opts(key, PutMultipartOptions::default()).await?;
    let sent = send(&mut *upload, bytes, part_bytes(bytes.len())).await;
    if sent.is_err() {
        // The error that counts is the one before; what stays is garbage that nobody sees.
        let _ = timeout(ABORT_TIME_MAX, upload.abort()).await;
    }
    sent
}

async fn send(upload: &mut dyn MultipartUpload, bytes: &[u8], part_bytes: usize) -> object_store::Result<()> {
    let mut parts = JoinSet::new();
    let sent = send_parts(upload, &mut parts, bytes, part_bytes).await;
    // A part that arrives after the others are forgotten would stay.
    parts.shutdown().await;
    sent?;
    upload.complete().await.map(drop)
}

async fn send_parts(
    upload: &mut dyn MultipartUpload,
    parts: &mut JoinSet<object_store::Result<()>>,
    bytes: &[u8],
    part_bytes: usize,
) -> object_store::Result<()> {
    for part in bytes.chunks(part_bytes) {
        if parts.len() == PARTS_SIDE_BY_SIDE {
            parts.join_next().await.transpose()?.transpose()?;
        }
        parts.spawn(upload.put_part(part.to_vec().into()));
    }
    while let Some(part) = parts.join_next().await {
        part??;
    }
    Ok(())
}

fn part_bytes(length: usize) -> usize {
    PART_BYTES.max(length.div_ceil(PARTS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_not_too_many_parts() {
        assert_eq!(part_bytes(PART_BYTES + 1), PART_BYTES);
        assert_eq!(part_bytes(PART_BYTES * PARTS_MAX), PART_BYTES);
        for length in [PART_BYTES * PARTS_MAX + 1, usize::MAX >> 8] {
            assert!(length.div_ceil(part_bytes(length)) <= PARTS_MAX, "{length}");
        }
    }
}
