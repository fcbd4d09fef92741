"""What settings of parts mean where no docstring says it: the same words for all parts that have such a setting.

A part's own docstring goes before. These stand here because a changed line of a task or a model, comments included,
trains every run of it again, and one of a source or a world makes its data sets again.
"""

WORDS: dict[str, str] = {
    # models
    "attention_channels": "Width of the layer that compares what is asked for with each place.",
    "backbone": "What looks at the image first; `small` learns from nothing in minutes, the others are torchvision's.",
    "cell": "The recurrent cell.",
    "context_channels": "Width of what is read of the image at a word.",
    "dropout": "Share of the values that are left out in training.",
    "embedding_channels": "Width of a word's vector.",
    "fused_channels": "Width of the layer in which image and question meet.",
    "hidden_channels": "Width of the recurrent state.",
    "max_detections": "Most detections of an image, the best ones.",
    "nms_threshold": "Of two detections of a class that overlap more than this IoU, the better one stays.",
    "norm": "Which statistics the backbone's norms use: of a worker's micro-batch, of all workers' images (`sync`, on "
    "GPUs), those that it was pretrained with (`frozen`), or of each image by itself (`group`).",
    "num_layers": "Recurrent layers, one on the other.",
    "pretrained": "Start the backbone from torchvision's ImageNet weights, which are downloaded once.",
    "roi_size": "Side of the square of features that a box is read as.",
    "rpn_nms_threshold": "Of two proposals that overlap more than this IoU, the better one stays.",
    # tasks
    "augment": "Random changes in training.",
    "center": "With `resize: cover`, the share of the short side that is kept.",
    "trials": "Rectangles that are tried for one IoU before the next one is drawn.",
    # the optimizer
    "factor": "What step and plateau multiply the rate by (0.1).",
    "name": "torch's optimizer.",
    "schedule": "How the rate goes on after the warm-up.",
    # sources and worlds
    "SplitSizes.train": "Records to learn from.",
    "SplitSizes.val": "Records to measure on.",
    "annotations": "JSON files of answers; a split without one has questions alone.",
    "captions": 'JSON files of captions; "" for none.',
    "classes": "Class names in the order of their labels; otherwise those that are found, sorted.",
    "image_sets": "The folder of lists in ImageSets.",
    "images": "Folders of the images.",
    "instances": 'JSON files of boxes and masks; "" for none.',
    "jpeg_quality": "Of the images that are written.",
    "max_objects": "Most objects in an image.",
    "num_records": "Images of each split.",
    "prefix": "What stands before a label in a line.",
    "seed": "Another one draws other data.",
    "splits": "How the files call a split where they do not call it so, such as `{val: valid}`; a list is read as one.",
    "test": 'What this split is called, or where it lies; "" for no such split.',
    "train": "What this split is called, or where it lies.",
    "val": 'What this split is called, or where it lies; "" for no such split.',
}
