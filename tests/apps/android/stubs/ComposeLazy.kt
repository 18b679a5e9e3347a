package androidx.compose.foundation.lazy

import androidx.compose.foundation.layout.Arrangement
import androidx.compose.runtime.Composable
import androidx.compose.ui.Modifier

interface LazyItemScope

interface LazyListScope

@Composable
fun LazyRow(
    modifier: Modifier = Modifier,
    horizontalArrangement: Arrangement.Horizontal = Arrangement.Start,
    content: LazyListScope.() -> Unit,
): Unit = TODO()

fun <T> LazyListScope.itemsIndexed(
    items: List<T>,
    itemContent: @Composable LazyItemScope.(index: Int, item: T) -> Unit,
): Unit = TODO()
