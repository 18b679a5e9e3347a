package {{package}}

import androidx.activity.compose.ReportDrawnWhen
import androidx.activity.compose.rememberLauncherForActivityResult
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts
import androidx.compose.foundation.Image
import androidx.compose.foundation.isSystemInDarkTheme
import androidx.compose.foundation.layout.Arrangement
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.ExperimentalLayoutApi
import androidx.compose.foundation.layout.FlowRow
import androidx.compose.foundation.layout.aspectRatio
import androidx.compose.foundation.layout.fillMaxSize
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.foundation.layout.padding
import androidx.compose.foundation.layout.safeDrawingPadding
import androidx.compose.foundation.layout.widthIn
import androidx.compose.foundation.lazy.LazyRow
import androidx.compose.foundation.lazy.itemsIndexed
import androidx.compose.foundation.rememberScrollState
import androidx.compose.foundation.verticalScroll
import androidx.compose.material3.Button
import androidx.compose.material3.DropdownMenuItem
import androidx.compose.material3.ExperimentalMaterial3Api
import androidx.compose.material3.ExposedDropdownMenuAnchorType
import androidx.compose.material3.ExposedDropdownMenuBox
import androidx.compose.material3.ExposedDropdownMenuDefaults
import androidx.compose.material3.FilterChip
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.OutlinedButton
import androidx.compose.material3.OutlinedTextField
import androidx.compose.material3.Surface
import androidx.compose.material3.Text
import androidx.compose.material3.darkColorScheme
import androidx.compose.material3.lightColorScheme
import androidx.compose.runtime.Composable
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.remember
import androidx.compose.runtime.setValue
import androidx.compose.ui.Alignment
import androidx.compose.ui.Modifier
import androidx.compose.ui.graphics.FilterQuality
import androidx.compose.ui.graphics.asImageBitmap
import androidx.compose.ui.layout.ContentScale
import androidx.compose.ui.res.stringResource
import androidx.compose.ui.unit.dp
import androidx.lifecycle.compose.collectAsStateWithLifecycle

/** Pixels are shown as squares in pictures that are narrower. */
private const val SMALL = 128

/** More classes are a menu. */
private const val MOST_CHIPS = 24

@Composable
fun GeneratorScreen(generator: GeneratorViewModel) {
    val state by generator.ui.collectAsStateWithLifecycle()
    ReportDrawnWhen { state.loaded && !state.busy }
    MaterialTheme(if (isSystemInDarkTheme()) darkColorScheme() else lightColorScheme()) {
        Surface(Modifier.fillMaxSize()) {
            Column(
                Modifier.safeDrawingPadding().padding(16.dp).verticalScroll(rememberScrollState()),
                Arrangement.spacedBy(16.dp),
                Alignment.CenterHorizontally,
            ) {
                if (!state.loaded && state.error == null) Text(stringResource(R.string.loading))
                state.error?.let { Text(it, color = MaterialTheme.colorScheme.error) }
                state.picture?.let { Shown(it) }
                if (state.loaded) Controls(state, generator)
                state.selfTest?.let { Text(it, style = MaterialTheme.typography.bodySmall) }
            }
        }
    }
}

@Composable
private fun Shown(picture: Picture) {
    val bitmap = remember(picture) { picture.image.toBitmap().asImageBitmap() }
    Image(
        bitmap = bitmap,
        contentDescription = stringResource(R.string.generated_picture),
        modifier = Modifier.widthIn(max = 480.dp).fillMaxWidth().aspectRatio(bitmap.width.toFloat() / bitmap.height),
        contentScale = ContentScale.Fit,
        filterQuality = if (bitmap.width < SMALL) FilterQuality.None else FilterQuality.Low,
    )
    Text(stringResource(R.string.latency, picture.milliseconds), style = MaterialTheme.typography.bodySmall)
}

@OptIn(ExperimentalLayoutApi::class)
@Composable
private fun Controls(state: UiState, generator: GeneratorViewModel) {
    if (state.classNames.size > MOST_CHIPS) {
        ClassMenu(state, generator)
    } else {
        LazyRow(horizontalArrangement = Arrangement.spacedBy(8.dp)) {
            itemsIndexed(state.classNames) { label, name ->
                FilterChip(
                    selected = label == state.label,
                    onClick = { generator.setLabel(label) },
                    label = { Text(name) },
                )
            }
        }
    }
    if (state.prompt != null) {
        OutlinedTextField(
            value = state.prompt,
            onValueChange = generator::setPrompt,
            modifier = Modifier.widthIn(max = 480.dp).fillMaxWidth(),
            label = { Text(stringResource(R.string.prompt)) },
        )
    }
    if (state.takesSeed) {
        OutlinedTextField(
            value = state.seed,
            onValueChange = generator::setSeed,
            label = { Text(stringResource(R.string.seed)) },
            singleLine = true,
        )
    }
    val chooser = rememberLauncherForActivityResult(ActivityResultContracts.PickVisualMedia()) { uri ->
        if (uri != null) generator.setInput(uri)
    }
    val saver = rememberLauncherForActivityResult(ActivityResultContracts.CreateDocument("image/png")) { uri ->
        if (uri != null) generator.save(uri)
    }
    FlowRow(horizontalArrangement = Arrangement.spacedBy(8.dp)) {
        if (state.takesPicture) {
            OutlinedButton(
                onClick = { chooser.launch(PickVisualMediaRequest(ActivityResultContracts.PickVisualMedia.ImageOnly)) },
            ) { Text(stringResource(R.string.choose_picture)) }
        }
        Button(
            onClick = generator::generate,
            enabled = !state.busy && (!state.takesPicture || state.input != null),
        ) { Text(stringResource(R.string.generate)) }
        if (state.takesSeed) {
            OutlinedButton(
                onClick = generator::newSeed,
                enabled = !state.busy && (!state.takesPicture || state.input != null),
            ) { Text(stringResource(R.string.new_seed)) }
        }
        if (state.picture != null) {
            OutlinedButton(onClick = { saver.launch("picture-${state.picture.recipe.seed}.png") }) {
                Text(stringResource(R.string.save))
            }
        }
    }
}

/** Of many classes, which no row has room for. */
@OptIn(ExperimentalMaterial3Api::class)
@Composable
private fun ClassMenu(state: UiState, generator: GeneratorViewModel) {
    var expanded by remember { mutableStateOf(false) }
    ExposedDropdownMenuBox(expanded = expanded, onExpandedChange = { expanded = it }) {
        OutlinedTextField(
            value = state.label?.let { state.classNames[it] }.orEmpty(),
            onValueChange = {},
            modifier = Modifier.menuAnchor(ExposedDropdownMenuAnchorType.PrimaryNotEditable),
            readOnly = true,
            label = { Text(stringResource(R.string.class_choice)) },
            trailingIcon = { ExposedDropdownMenuDefaults.TrailingIcon(expanded) },
            singleLine = true,
        )
        ExposedDropdownMenu(expanded = expanded, onDismissRequest = { expanded = false }) {
            state.classNames.forEachIndexed { label, name ->
                DropdownMenuItem(
                    text = { Text(name) },
                    onClick = {
                        generator.setLabel(label)
                        expanded = false
                    },
                )
            }
        }
    }
}
