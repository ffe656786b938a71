//! A thumbnail of every new picture of a camera, and how bright it is.

use holm_function::prelude::*;
use jpeg_encoder::{ColorType, Encoder};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// The longer side of a thumbnail, in pixels.
const LONGER: usize = 160;

/// Of a camera with some 12 megapixels.
const LARGEST: usize = 4096;

/// Rows of red, green and blue.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

fn decode(jpeg: &[u8]) -> Result<Picture, Failure> {
    let options = DecoderOptions::default().set_max_width(LARGEST).set_max_height(LARGEST).set_strict_mode(true);
    let options = options.jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    let no_picture = |_| Failure::reject("not a JPEG, or a broken one, or too large");
    let pixels = decoder.decode().map_err(no_picture)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| Failure::reject("a picture without a size"))?;
    Ok(Picture { width, height, pixels })
}

impl Picture {
    /// Every pixel is the mean of those that it stands for.
    fn shrink(&self, longer: usize) -> Self {
        let largest = self.width.max(self.height).max(longer);
        let scaled = |side: usize| (side * longer / largest).max(1);
        let (width, height) = (scaled(self.width), scaled(self.height));
        let mut pixels = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            let rows = y * self.height / height..((y + 1) * self.height / height).max(y * self.height / height + 1);
            for x in 0..width {
                let columns = x * self.width / width..((x + 1) * self.width / width).max(x * self.width / width + 1);
                let mut sum = [0_usize; 3];
                for row in rows.clone() {
                    let begin = row * self.width + columns.start;
                    for pixel in self.pixels[begin * 3..(begin + columns.len()) * 3].chunks_exact(3) {
                        for (sum, value) in sum.iter_mut().zip(pixel) {
                            *sum += usize::from(*value);
                        }
                    }
                }
                pixels.extend(sum.map(|sum| (sum / (rows.len() * columns.len())) as u8));
            }
        }
        Self { width, height, pixels }
    }

    fn brightness(&self) -> f64 {
        let sum: u64 = self.pixels.iter().map(|value| u64::from(*value)).sum();
        100.0 * sum as f64 / (self.pixels.len() as f64 * 255.0)
    }

    fn encode(&self) -> Result<Vec<u8>, Failure> {
        let mut jpeg = Vec::new();
        let encoder = Encoder::new(&mut jpeg, 80);
        let done = encoder.encode(&self.pixels, self.width as u16, self.height as u16, ColorType::Rgb);
        done.map_err(|_| Failure::reject("the thumbnail cannot be encoded"))?;
        Ok(jpeg)
    }
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let thumbnail = decode(&event.data)?.shrink(LONGER);
    results::record("brightness", thumbnail.brightness())?;
    let mut message = Publish::to("camera/thumbnail").bytes(thumbnail.encode()?);
    message.payload.content_type = Some("image/jpeg".to_owned());
    message.user_properties.push(("name".to_owned(), event.attribute("name").unwrap_or("unknown").to_owned()));
    message.send()?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    /// `tests/oracle.py` has made the picture, and says what Pillow's thumbnail of it is.
    #[test]
    fn a_thumbnail_is_nearly_that_of_pillow() {
        let picture = include_bytes!("../tests/picture.jpg");
        let ours = decode(picture).unwrap().shrink(LONGER);
        let theirs = decode(include_bytes!("../tests/thumbnail.jpg")).unwrap();
        assert_eq!((ours.width, ours.height), (theirs.width, theirs.height));
        let far = ours.pixels.iter().zip(&theirs.pixels).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
        let mean = far / ours.pixels.len() as f64;
        assert!(mean < 3.0, "{mean}");
        let mut host = TestHost::new();
        host.run(handle, Event::mqtt("camera", picture)).unwrap();
        let published = decode(&host.publishes()[0].payload.data).unwrap();
        assert_eq!((published.width, published.height), (160, 120));
    }

    #[test]
    fn what_is_no_picture_is_rejected() {
        for bytes in [&b""[..], b"\xff\xd8\xff", &include_bytes!("../tests/picture.jpg")[..700]] {
            assert!(matches!(TestHost::new().run(handle, Event::mqtt("camera", bytes)), Err(Failure::Reject { .. })));
        }
    }
}
