"""Makes picture.jpg, and thumbnail.jpg of it. pip install pillow==13.0.0"""

import math
import pathlib

from PIL import Image

folder = pathlib.Path(__file__).parent
picture = Image.new("RGB", (640, 480))
for y in range(480):
    for x in range(640):
        ring = math.sin(math.hypot(x - 320, y - 240) / 12)
        picture.putpixel((x, y), (int(127 + 120 * ring), x * 255 // 640, y * 255 // 480))
picture.save(folder / "picture.jpg", quality=60)
thumbnail = Image.open(folder / "picture.jpg")
thumbnail.thumbnail((160, 160), Image.Resampling.BOX, reducing_gap=None)
thumbnail.save(folder / "thumbnail.jpg", quality=95, subsampling=0)
mean = sum(sum(pixel) for pixel in thumbnail.get_flattened_data()) / (160 * 120 * 3)
print("brightness", 100 * mean / 255)
