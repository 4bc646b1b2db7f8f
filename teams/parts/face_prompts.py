"""Prompts that two teams of the face challenge share to the word."""

PORTRAIT = (
    "sufficient detail, high-resolution, detailed face, natural skin texture, sharp focus, realistic lighting, clear facial "
    "features, defined jawline, natural expression, proportional face, beautiful face, well-lit, high clarity, high aesthetic "
    "quality, natural proportions, detailed eyes, realistic shadows, natural colors, high-quality details, normal facial "
    "proportions"
)
CAMERA = "IMG_123.CR2, 85mm lens, f/1.8"
PORTRAIT_NEGATIVE = (
    "blurry, pixelated, low-resolution, distorted features, excessive noise, disproportionate facial features, plastic-like "
    "skin, cartoonish, unrealistic expressions, misshapen eyes or nose, blur hair, artifacts eyes, artifacts teeth, blurry, "
    "unnatural colors, exaggerated shadows, artifacts, overexposed areas, asymmetrical face, unnatural lighting, harsh "
    "shadows, warped facial proportions, noisy background, out-of-focus, unnatural textures, unrealistic proportions, strange "
    "or distorted facial features, blur hair, artifacts eyes, artifacts teeth"
)
