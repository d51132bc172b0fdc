"""Other words for the same: the templates in which a class is asked for, and the forms of a word."""

TEMPLATES = (  # of Radford et al. 2021, those that fit photographs, drawings and pictograms alike
    "a photo of a {}",
    "a {}",
    "{}",
    "a picture of a {}",
    "a photo of the {}",
    "a drawing of a {}",
    "a close-up photo of a {}",
    "a cropped photo of the {}",
    "a bright photo of a {}",
    "a dark photo of the {}",
    "a photo of one {}",
    "a rendition of a {}",
    "a good photo of a {}",
    "a photo of a large {}",
    "a photo of a small {}",
    "there is a {} in the picture",
)
