//! A bucket of S3, or of what speaks its protocol.

use std::{sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
};

use crate::{Error, Options, objects::Store};

/// The pauses between the attempts of a request; a server that is back is used within the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long a connection may take to be made; an attempt that takes longer is begun anew.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// A client for a bucket. Nothing is asked of the server yet.
pub(crate) fn open(url: &str, bucket: &str, options: &Options) -> Result<(Store, String), Error> {
    let builder = with_options(AmazonS3Builder::from_env(), options);
    let endpoint = endpoint_of(&builder);
    let is_plain = endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    check_endpoint(url, endpoint.as_deref(), is_plain)?;
    let is_host_set = std::env::var_os("AWS_VIRTUAL_HOSTED_STYLE_REQUEST").is_some();
    // A certificate of AWS does not cover a host name that a dot in the bucket's name divides.
    let is_host = endpoint.is_none() && !bucket.contains('.');
    let builder = if is_host_set { builder } else { builder.with_virtual_hosted_style_request(is_host) };
    let store = builder
        .with_bucket_name(bucket)
        .with_allow_http(is_plain)
        // The deletion of one object is known to every server, that of many is not.
        .with_disable_bulk_delete(true)
        .with_retry(retry(options.retry_time))
        .with_client_options(client_options(options.retry_time, is_plain))
        .build()
        .map_err(|error| Error::Settings(format!("cannot use `{url}`: {error}")))?;
    let server = endpoint.map_or_else(String::new, |endpoint| format!(" at {endpoint}"));
    Ok((Arc::new(store), server))
}

/// Options count more than variables.
fn with_options(builder: AmazonS3Builder, options: &Options) -> AmazonS3Builder {
    let mut builder = builder;
    for (key, value) in [
        // There are two variables for the endpoint; this is the one that counts more.
        (AmazonS3ConfigKey::S3Endpoint, &options.endpoint),
        (AmazonS3ConfigKey::Region, &options.region),
        (AmazonS3ConfigKey::AccessKeyId, &options.access_key_id),
        (AmazonS3ConfigKey::SecretAccessKey, &options.secret_access_key),
        (AmazonS3ConfigKey::Token, &options.session_token),
    ] {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    builder
}

fn endpoint_of(builder: &AmazonS3Builder) -> Option<String> {
    let value = |key| builder.get_config_value(&key).filter(|value| !value.is_empty());
    value(AmazonS3ConfigKey::S3Endpoint).or_else(|| value(AmazonS3ConfigKey::Endpoint))
}

fn check_endpoint(url: &str, endpoint: Option<&str>, is_plain: bool) -> Result<(), Error> {
    if let Some(endpoint) = endpoint.filter(|endpoint| !is_plain && !endpoint.starts_with("https://")) {
        return Err(Error::Settings(format!(
            "cannot use `{url}`: the endpoint `{endpoint}` begins with neither `http://` nor `https://`; correct `AWS_ENDPOINT_URL`"
        )));
    }
    Ok(())
}

fn retry(time: Duration) -> RetryConfig {
    let (init_backoff, max_backoff) = PAUSES;
    let backoff = BackoffConfig { init_backoff, max_backoff, base: 2.0 };
    RetryConfig { backoff, max_retries: usize::MAX, retry_timeout: time }
}

fn client_options(time: Duration, is_plain: bool) -> ClientOptions {
    // The client asks for one even where it never needs it. Whoever has installed another has chosen it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = ClientOptions::new().with_timeout(time).with_connect_timeout(CONNECT_TIME_MAX.min(time));
    // HTTP/1.1: a connection for each part, so that parts do not wait for each other.
    options.with_allow_http(is_plain).with_http1_only()
}
