"""From data to a verified file: the quick start of the README."""

from lightning.pytorch import Trainer

from smx_export import export_onnx
from smx_export.runtime import OnnxClassifier
from smx_lightning import SoftmaxRegression
from smx_lightning.data import DigitsDataModule

data = DigitsDataModule()
model = SoftmaxRegression(data.num_features, data.num_classes, preprocessing="standardize")
trainer = Trainer(max_epochs=100, logger=False)
trainer.fit(model, data)
trainer.test(model, data)

export = export_onnx(model, "digits.onnx")  # raises ParityError where the file is not the model
print(export.report)
print(OnnxClassifier("digits.onnx").predict(data.splits.test.x[:5].numpy()))
