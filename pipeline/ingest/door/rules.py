"""Every reason for which raw data is refused or changed, and the rule behind it in one sentence.

`PROBLEMS` name what is dropped (the `reason` of a `Problem`); `FIXES` name what is changed and kept, counted in the
manifest. Sources and the door use these names and no others; a test compares them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from contracts.raw import Problem

# Found by a source while it reads annotation files.
_SOURCE_PROBLEMS = {
    "not_an_object": "An entry of a JSON list that is not a JSON object is dropped.",
    "bad_image_entry": "An image entry needs an id, a file name and, if given, a whole width and height from 0 on.",
    "bad_image_id": "An image id must be a whole number or a text that is not empty (VQA: a whole number).",
    "duplicate_image_id": "Of several image entries with one id the first counts.",
    "conflicting_image_entry": "An image that two files describe must have one file name and size; both are dropped.",
    "unsafe_path": "An image's file name must stay inside the data set's folder: no absolute path and no `..`.",
    "duplicate_key": "Of several entries of one image file the first counts.",
    "bad_annotation_id": "A question id must be a text, or a whole number from 0 to 2^63 - 1.",
    "duplicate_annotation_id": "Of several annotations with one id the first counts.",
    "unknown_image": "An annotation whose image has no usable entry is dropped.",
    "bad_box": "A box must be four numbers; it may be missing only beside a segmentation.",
    "bad_caption": "A caption must be a text.",
    "bad_question": "A question needs a text.",
    "bad_answers": "Answers must be a list of `{answer: text}`; the question is dropped with them.",
    "bad_choices": "A question of Visual7W needs an answer and wrong ones: all texts, or ids of boxes of its file.",
    "unknown_question": "Answers to a question that the question file does not have are dropped.",
    "question_image_mismatch": "A question whose answers name another image is dropped.",
    "question_without_answers": "In a split that has an annotation file, a question without answers is dropped.",
    "missing_annotation": "A listed image without its XML, where others have one, is refused: it would look empty.",
    "broken_xml": "An image whose XML cannot be parsed is refused.",
    "not_labelme": "A JSON file that cannot be parsed or has no list `shapes` is not LabelMe's.",
    "bad_shape": "A LabelMe shape needs a label and the points of its kind; its object is dropped.",
    "shape_without_area": "Of LabelMe's shapes, points, lines and whatever else encloses nothing are dropped.",
    "bad_label_line": "A line of YOLO labels needs a class and 4 (box), 6, 8 or more (polygon) shares of the sides.",
    "text_without_class": "A line of labeled texts without a label is refused.",
    "image_without_class": "An image beside the class folders, and in none of them, has no label and is refused.",
    "sample_without_image": "A sample of a tar needs a member `.jpg`, `.jpeg`, `.png` or `.webp`.",
    "duplicate_member": "Of two members of one name in a sample of a tar the first counts.",
    "bad_sample_json": "A `.json` in a tar that is no JSON object is dropped; the rest of its sample is read.",
    "bad_label": "A label must be a whole number or a text that is not empty.",
    "not_utf8": "A line of a text file that is not UTF-8 is refused with its record.",
    "bad_text_line": "A line of a list of word pictures needs the picture's file and its text, in UTF-8.",
    "missing_text": "A picture of a word without the file of its text, where others have one, is refused.",
    "bad_list_line": "A line of a list of clips needs a file or folder, and the numbers or the class that go with it.",
    "bad_segment_line": "A line of segments needs its start, its end and its class or video.",
    "unknown_video": "An annotation of a video that has no file is dropped.",
    "bad_proposals": "Proposals must be rows of four numbers; a picture's are dropped together.",
    "conflicting_size": "An image whose size two sources give differently is refused.",
}

# Found by the door: the whole record is refused.
_RECORD_PROBLEMS = {
    "missing_image": "An image file that is absent or not a plain file is refused.",
    "outside_folder": "A file whose link leads out of the data set's folder is refused, unless `follow_links` is set.",
    "file_too_large": "An image file of more than 512 MiB is refused unread.",
    "not_an_image": "A file that is no JPEG, PNG, BMP, GIF, WebP, TIFF or PPM is refused.",
    "too_many_pixels": "An image or mask of more pixels than `shards.max_megapixels` is refused before it is decoded.",
    "truncated_image": "An image file that ends early, or has fewer rows than its header announces, is refused.",
    "damaged_image": "A JPEG with broken codes, lost markers, or far more data than its header announces, is refused.",
    "undecodable_image": "An image file that its decoder rejects is refused.",
    "unsupported_mode": "An image of 32-bit integers, floats or unknown colours is refused.",
    "size_mismatch": "An image whose size differs from its annotation is refused: its boxes cannot be trusted.",
    "missing_mask": "A mask file that is absent is refused with its image.",
    "broken_mask": "A mask file that cannot be decoded is refused with its image.",
    "mask_not_png": "A mask must be a PNG: a JPEG has other labels along every edge, and cannot be mended.",
    "mask_not_indexed": "A mask must have one channel of ids or a palette; colours need VOC's `labelmap.txt`.",
    "mask_unknown_color": "A mask of colours may hold only those that `labelmap.txt` lists.",
    "mask_size_mismatch": "A mask must have the size of its image.",
    "empty_record": "A record without an image, a frame, a sentence or a transcript is refused.",
    "missing_video": "A video file that is absent or not a plain file is refused.",
    "undecodable_video": "A video of which OpenCV decodes no frame, or none of the part that is asked for, is refused.",
    "missing_frame": "A clip of which a frame's file is absent is refused.",
    "too_many_frames": "A clip of more than 10,000 frames is refused: their numbers have four digits.",
    "bad_frame_times": "A clip needs a time for each frame, from 0 seconds on and ascending.",
    "frame_size_mismatch": "The frames of a clip must have one size, that of the annotation if it gives one.",
    "empty_sentence": "Sentences of which one has no visible character are dropped together, a pair with its record.",
    "long_sentence": "A pair of which a sentence has more than 200 words is dropped (letters of Han, Kana and so on).",
    "uneven_pair": "A pair of which one sentence has more than 9 times the words of the other is dropped.",
    "mask_unknown_label": "A label mask may hold only 0, class labels and 255, or what the source's map knows.",
}

# Found by the door: one object, caption or question is dropped and the record is kept.
_ITEM_PROBLEMS = {
    "box_not_finite": "A box with NaN, infinite or missing numbers is dropped.",
    "negative_box": "A box with a negative width or height is dropped.",
    "zero_area_box": "A box without area is dropped.",
    "box_outside": "A box wholly outside the image is dropped.",
    "unknown_class": "An object of a class that the data set does not list is dropped.",
    "bad_segmentation": "A segmentation must be a list of polygons or a run-length mapping.",
    "polygon_odd_coordinates": "An object whose only polygons have an odd count of numbers is dropped.",
    "polygon_not_finite": "An object whose only polygons have NaN, infinite or non-numeric coordinates is dropped.",
    "polygon_far_outside": "An object whose only polygons leave the image by more than the image's size is dropped.",
    "rle_size_mismatch": "A run-length mask must have the size of its image, if it gives one.",
    "rle_bad_counts": "Run lengths must be whole numbers, or a text in COCO's compressed code.",
    "rle_negative_run": "A run length below 0 is impossible; the object is dropped.",
    "rle_bad_sum": "Run lengths must add up to height x width.",
    "mask_outside_box": "An object whose mask does not touch its box is dropped: one of the two lies.",
    "instance_without_object": "An id in an instance mask beyond the annotated objects is dropped.",
    "empty_caption": "A caption without a visible character is dropped.",
    "empty_question": "A question without a visible character is dropped.",
    "empty_candidate": "A question with a candidate without a visible character is dropped.",
    "duplicate_candidate": "A question with two equal candidates is dropped: both would be right, or neither.",
    "bad_candidates": "A question whose candidates have texts and boxes must have as many of both.",
    "answer_out_of_range": "A question whose right answer is none of its candidates is dropped.",
    "bad_alignment": "An alignment with a link to a word that its sentences do not have is dropped.",
    "empty_transcript": "A transcript without a visible character is dropped.",
    "bad_segment": "A segment that ends before it starts, or at no finite time, is dropped.",
    "segment_outside": "A segment wholly outside its clip is dropped.",
    "frame_labels_mismatch": "Labels of frames are dropped where they are more or fewer than the frames.",
}

FIXES = {
    "duplicate_frame": "Of two files of one frame's number the first by name counts.",
    "annotation_id_made": "An annotation without a usable id is named by its place in the file.",
    "image_id_type": "An annotation that writes its image's id as text where the image has a number, or so, is joined.",
    "number_from_text": 'A number that is written as text ("20.5") is read as the number.',
    "polygon_nested": "A polygon that is one flat list of numbers is read as the only part of its object.",
    "polygon_part_dropped": "A part with fewer than three points, or with a lost coordinate, goes; the others stay.",
    "box_from_mask": "An object without a box gets the one around its mask.",
    "box_clipped": "A box that is partly outside is clipped to the image.",
    "area_replaced": "An object's area that is not finite and positive is replaced by its mask's area, else its box's.",
    "empty_mask_dropped": "A mask without pixels (points, lines) is dropped; its object stays, with its box.",
    "caption_normalised": "Control characters become spaces, runs of white space one space, the ends are stripped.",
    "question_normalised": "Control characters become spaces, runs of white space one space, the ends are stripped.",
    "answer_normalised": "Control characters become spaces, runs of white space one space, the ends are stripped.",
    "sentence_normalised": "As captions are, and letters with their marks become one character (NFC).",
    "transcript_normalised": "As captions are, and letters with their marks become one character (NFC).",
    "marks_dropped": "Tatweel and the vowel signs of Arabic are left out, unless `keep_marks` is set.",
    "segment_clipped": "A segment that is partly outside its clip is clipped to it.",
    "proposal_dropped": "A proposal without area inside the image, or with a number that is not finite, is dropped.",
    "video_ends_early": "A video with less than nine tenths of the frames that it announces is kept as far as it goes.",
    "frame_to_jpeg": "A frame that is no JPEG is encoded as one (quality 95, 4:4:4).",
    "most_frequent_answer": "A question without `multiple_choice_answer` gets the most frequent one of its answers.",
    "answers_not_ten": "A question whose number of answers is neither 0 nor 10 is kept and counted.",
    "cmyk_to_rgb": "A CMYK image is converted to RGB and encoded again (JPEG, quality 95, 4:4:4).",
    "depth_16_to_8": "A 16-bit image keeps the high byte of each sample and is encoded again.",
    "alpha_dropped": "An alpha channel is dropped, not blended, and the image is encoded again.",
    "palette_to_rgb": "A palette image is expanded to RGB and encoded again.",
    "colour_mode_converted": "A bilevel image becomes grey, YCbCr, LAB and HSV become RGB, and it is encoded again.",
    "reencoded_as_png": "A format other than JPEG and PNG is encoded again as PNG, without loss.",
    "image_shrunk": "With `shards.short_side`, a larger image is stored as a JPEG of that short side.",
    "first_frame": "Of an animated or multi-page image the first frame is kept.",
    "exif_rotated": "Pixels are rotated upright where `exif: apply` or the size says so, or nothing is marked.",
    "exif_orientation_dropped": "An orientation tag is removed where `exif: ignore` or the annotation's size says so.",
    "exif_undecided": "With `exif: auto`, a size that does not tell stored from upright means the stored pixels.",
}

PROBLEMS = {**_SOURCE_PROBLEMS, **_RECORD_PROBLEMS, **_ITEM_PROBLEMS}
RULES = {**PROBLEMS, **FIXES}


def in_words(problems: Iterable[Problem], num_examples: int = 3) -> str:
    """Problems by rule, most frequent first: how many, the rule, and the first few with file and id."""
    found: dict[str, list[Problem]] = {}
    counts: Counter[str] = Counter()
    for problem in problems:
        counts[problem.reason] += 1
        if counts[problem.reason] <= num_examples:
            found.setdefault(problem.reason, []).append(problem)
    lines = []
    for reason, count in counts.most_common():
        lines.append(f"  - {count} x {reason}: {RULES[reason]}")
        lines += [
            f"      {p.file}: {p.kind} {p.item_id}" + (f" ({p.detail})" if p.detail not in ("", p.file) else "")
            for p in found[reason]
        ]
    return "\n".join(lines)


class Refused(Exception):
    """Raised inside the door: what is looked at cannot be used. Becomes a `Problem`; never leaves the door.

    `file` is the one that was looked at, where that is not the annotation's.
    """

    def __init__(self, reason: str, detail: str = "", file: Path | None = None):
        super().__init__(reason, detail)
        self.reason, self.detail, self.file = reason, detail, file
