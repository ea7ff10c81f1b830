//! Arguments of the commands that reach an S3 bucket.

use clap::Args;

/// How a bucket is reached, besides the usual `AWS_*` of the environment.
#[derive(Args, Debug)]
pub struct BucketArgs {
    /// Where the bucket's server is, for one that is not Amazon's [default: AWS_ENDPOINT_URL]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
}
